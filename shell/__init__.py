"""The click commands, and the shell programs PIPE, GET_FILE, PUT_FILE, RUN and QUOTE."""
