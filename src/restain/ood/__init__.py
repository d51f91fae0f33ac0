"""Out-of-distribution detection: is an H&E image like the images of the training?"""
