from services.feature_server.main import main

main()
