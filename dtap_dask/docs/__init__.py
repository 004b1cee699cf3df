"""The reference pages, one Markdown file a topic, and what shows them."""
