"""What users write: App, Function, Image, Secret and the decorators. All of it ends in one frozen `AppSpec`."""
