"""The site: pages of docs/, and reference pages that are made from the code."""
