-- Beside MLflow's runs and registry (database mlflow): its logins.
CREATE DATABASE mlflow_auth;
