"""Addresses below ``/sandboxes/``."""

from django.urls import path

from sandboxes import views

urlpatterns = [
    path("", views.collection),
    path("<uuid:sandbox_id>/", views.sandbox),
    path("<uuid:sandbox_id>/run", views.run),
    path("<uuid:sandbox_id>/stream", views.stream),
    path("<uuid:sandbox_id>/commands", views.start),
    path("<uuid:sandbox_id>/commands/<str:command_id>", views.command),
    path("<uuid:sandbox_id>/files/<path:name>", views.file),
]
