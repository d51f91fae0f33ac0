BEGIN TRANSACTION;
CREATE TABLE annotations (
	image VARCHAR(64) NOT NULL, 
	name TEXT NOT NULL, 
	version INTEGER NOT NULL, 
	changed VARCHAR(32) NOT NULL, 
	features TEXT NOT NULL, 
	PRIMARY KEY (image)
);
INSERT INTO "annotations" VALUES('9c1185a5c5e9fc546128','block_1.ome.tiff',2,'2026-11-25T11:22:51+00:00','[{"type": "Feature", "id": "a", "geometry": {"type": "Point", "coordinates": [1.5, 2.25]}, "properties": {"objectType": "annotation", "name": "\u6838\u5206\u88c2"}}]');
COMMIT;
