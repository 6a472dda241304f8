"""Our gRPC contracts: a .proto file each, and the message classes that protoc made of it (`make proto`)"""
