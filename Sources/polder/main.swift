print("polder: no command is built yet")
