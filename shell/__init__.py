"""The click commands of the clients, among them those behind PIPE, GET_FILE, PUT_FILE, RUN and QUOTE."""
