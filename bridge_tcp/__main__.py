from bridge_tcp.cli import bridge

if __name__ == "__main__":
    bridge(prog_name="ssmprov bridge")
