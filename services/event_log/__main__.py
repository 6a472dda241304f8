from services.event_log.main import main

main()
