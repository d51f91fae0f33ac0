BEGIN TRANSACTION;
CREATE TABLE answers (
	id INTEGER NOT NULL, 
	item_id INTEGER NOT NULL, 
	question VARCHAR(40) NOT NULL, 
	value TEXT NOT NULL, 
	at VARCHAR(32) NOT NULL, 
	seconds FLOAT, 
	PRIMARY KEY (id), 
	FOREIGN KEY(item_id) REFERENCES items (id)
);
INSERT INTO "answers" VALUES(1,1,'her2','2+','2026-03-02T09:00:00.000000+00:00',0.0);
INSERT INTO "answers" VALUES(2,1,'origin','virtual','2026-03-02T09:00:00.000000+00:00',0.0);
INSERT INTO "answers" VALUES(3,1,'quality','4','2026-03-02T09:00:00.000000+00:00',0.0);
INSERT INTO "answers" VALUES(4,1,'remarks','zarte Färbung','2026-03-02T09:00:00.000000+00:00',0.0);
INSERT INTO "answers" VALUES(5,1,'her2','1+','2026-03-02T09:00:00.000000+00:00',0.0);
CREATE TABLE images (
	id INTEGER NOT NULL, 
	path TEXT NOT NULL, 
	case_id VARCHAR(80) NOT NULL, 
	modality VARCHAR(10) NOT NULL, 
	width INTEGER NOT NULL, 
	height INTEGER NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "images" VALUES(0,'/data/material/chemical-0.png','P0','chemical',9,9);
INSERT INTO "images" VALUES(1,'/data/material/virtual-0.png','P0','virtual',8,8);
INSERT INTO "images" VALUES(2,'/data/material/chemical-1.png','P1','chemical',9,9);
INSERT INTO "images" VALUES(3,'/data/material/virtual-1.png','P1','virtual',8,8);
CREATE TABLE items (
	id INTEGER NOT NULL, 
	token VARCHAR(40) NOT NULL, 
	reader_id INTEGER NOT NULL, 
	image_id INTEGER NOT NULL, 
	session INTEGER NOT NULL, 
	position INTEGER NOT NULL, 
	repeat BOOLEAN NOT NULL, 
	offered VARCHAR(32), 
	seen VARCHAR(32), 
	PRIMARY KEY (id), 
	UNIQUE (reader_id, position), 
	UNIQUE (token), 
	FOREIGN KEY(reader_id) REFERENCES readers (id), 
	FOREIGN KEY(image_id) REFERENCES images (id)
);
INSERT INTO "items" VALUES(1,'weLs29ly6qhdl_YeF8DcSYeDfFxQsekJ',0,1,0,0,0,'2026-03-02T09:00:00.000000+00:00','2026-03-02T09:00:00.000000+00:00');
INSERT INTO "items" VALUES(2,'atyAJf_Yb4_J2EuWLkXlse-h7s-xySAk',0,2,0,1,0,NULL,NULL);
INSERT INTO "items" VALUES(3,'5YUWjNbZVTbUB5DC-FrY-tRIx_ZJMXyg',0,3,1,2,0,NULL,NULL);
INSERT INTO "items" VALUES(4,'eSmQChK6YW6QDTmVk3Tt4RjOpqQ__YGR',0,0,1,3,0,NULL,NULL);
INSERT INTO "items" VALUES(5,'rrPQ4bTz-mIVB-3yTbC-4OkV0i-WYGnx',1,0,0,0,0,NULL,NULL);
INSERT INTO "items" VALUES(6,'DVh0fCblIzYasNalR5iTYBr5RcNF3DDC',1,3,0,1,0,NULL,NULL);
INSERT INTO "items" VALUES(7,'gFs3WyLxAprlkiCF0Fak_q82EBPNV-u7',1,1,1,2,0,NULL,NULL);
INSERT INTO "items" VALUES(8,'PwkoDst_PY-qr-fN9n-3Iatl6DhHiffu',1,2,1,3,0,NULL,NULL);
CREATE TABLE meta (
	schema_version INTEGER NOT NULL
);
INSERT INTO "meta" VALUES(1);
CREATE TABLE readers (
	id INTEGER NOT NULL, 
	name VARCHAR(80) NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (name)
);
INSERT INTO "readers" VALUES(0,'anna');
INSERT INTO "readers" VALUES(1,'bo');
CREATE TABLE study (
	id INTEGER NOT NULL, 
	definition TEXT NOT NULL, 
	width INTEGER NOT NULL, 
	height INTEGER NOT NULL, 
	created VARCHAR(32) NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "study" VALUES(1,'{"title":"Trial","images":[{"path":"/data/material/chemical-0.png","case":"P0","modality":"chemical","level":"0"},{"path":"/data/material/virtual-0.png","case":"P0","modality":"virtual","level":"0"},{"path":"/data/material/chemical-1.png","case":"P1","modality":"chemical","level":"1+"},{"path":"/data/material/virtual-1.png","case":"P1","modality":"virtual","level":"1+"}],"questions":[{"kind":"her2","name":"her2","words":"HER2 level?"},{"kind":"origin","name":"origin","words":"Real (chemical) or virtual stain?"},{"kind":"quality","name":"quality","words":"Quality of the staining, 1 (useless) to 5 (excellent)?"},{"kind":"text","name":"remarks","words":"Remarks"}],"readers":["anna","bo"],"repeats":0.0,"washout_days":14.0,"margin":0.1,"positive":"3+","seed":5,"format":1}',8,8,'2026-03-02T09:00:00.000000+00:00');
CREATE INDEX ix_answers_item_id ON answers (item_id);
COMMIT;
