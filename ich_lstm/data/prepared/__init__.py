"""The folder of prepared scans."""
