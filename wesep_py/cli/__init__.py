"""The commands of `wesep`: one thin file each. Nothing else imports this package."""
