"""What drives the level and the DAB: attribution and attention maps, and how far either can be trusted.

``targets`` names the numbers that are explained, ``attribution`` and ``attention`` map them, ``image`` explains one image.
``faithfulness`` and ``check`` measure the maps on the phantom, whose causes are known.
"""
