from workers.cli_worker import worker

if __name__ == "__main__":
    worker(prog_name="ssmprov worker")
