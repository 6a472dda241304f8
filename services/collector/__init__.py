"""The door for events: checks them, completes them and puts them into Kafka."""
