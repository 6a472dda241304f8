from services.shop.main import main

main()
