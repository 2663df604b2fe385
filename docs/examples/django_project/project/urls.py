"""All addresses."""

from django.urls import include, path

urlpatterns = [path("sandboxes/", include("sandboxes.urls"))]
