from services.stream_features.main import main

main()
