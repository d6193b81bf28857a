"""Parts of protocols that have one leader; they know no protocol and none of its messages."""
