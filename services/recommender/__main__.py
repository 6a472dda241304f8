from services.recommender.main import main

if __name__ == "__main__":  # workers import it again
    main()
