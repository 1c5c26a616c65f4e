-- Headers that travel with an object to its bucket: JSON object of texts.
ALTER TABLE uploads ADD COLUMN headers TEXT NOT NULL DEFAULT '{}';
