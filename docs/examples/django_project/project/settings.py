"""Settings: no database, since the durable ids are in the record store."""

import os

SECRET_KEY = os.environ.get("DJANGO_SECRET_KEY", "only-for-this-example")
DEBUG = False
ALLOWED_HOSTS = ["127.0.0.1", "localhost", "testserver"]
ROOT_URLCONF = "project.urls"
WSGI_APPLICATION = "project.wsgi.application"
INSTALLED_APPS = ["sandboxes"]
MIDDLEWARE = ["sandboxes.errors.SandboxErrors"]
USE_TZ = True

# Where sandboxes are made. Their credentials and the record store come from the environment, as
# the README of the library says.
SANDBOX_PROVIDER = os.environ.get("SANDBOX_PROVIDER", "local")
SANDBOX_LIFETIME_MS = 30 * 60 * 1000
SANDBOX_COMMAND_TIMEOUT_S = 60
SANDBOX_UPLOAD_MAX_BYTES = 1 << 30
