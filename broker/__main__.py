from broker.cli import broker

if __name__ == "__main__":
    broker(prog_name="ssmprov broker")
