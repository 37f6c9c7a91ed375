"""What outlives the server: the deployed apps in a database (the only SQL), and the users' files in a folder."""
