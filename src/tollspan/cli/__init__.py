"""What people run: the command line, the live panel, the web page. Each only formats what the layers below answer."""
