"""What a model reads of an image, a sound or a document: its size out of its header, and the tokens that makes.

    source.py        bytes in memory or in base64, read in pieces
    images.py        width and height of PNG, JPEG, GIF and WebP
    audio.py         seconds of WAV, MP3, OGG and FLAC
    documents.py     pages of a PDF
    image_tokens.py  the providers' formulas for images
    attachments.py   all together: the most tokens and seconds of one attachment

Nothing here does I/O, raises on what it reads, or reads more than a bounded part of it.
"""
