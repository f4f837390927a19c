CREATE TABLE IF NOT EXISTS topics (
  name TEXT PRIMARY KEY,
  partitions INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS records (
  sequence INTEGER PRIMARY KEY AUTOINCREMENT,
  topic TEXT NOT NULL,
  partition INTEGER NOT NULL,
  record_offset INTEGER NOT NULL,
  publication_id TEXT NOT NULL,
  appended_at TEXT NOT NULL,
  event_id TEXT NOT NULL,
  type TEXT NOT NULL,
  source TEXT NOT NULL,
  event_key TEXT NOT NULL,
  subject TEXT NOT NULL,
  time TEXT NOT NULL,
  known_time TEXT NOT NULL,
  traceparent TEXT NOT NULL,
  extensions TEXT NOT NULL,
  data BLOB NOT NULL,
  UNIQUE (topic, partition, record_offset),
  UNIQUE (topic, publication_id)
);

CREATE TABLE IF NOT EXISTS offsets (
  consumer_group TEXT NOT NULL,
  topic TEXT NOT NULL,
  partition INTEGER NOT NULL,
  next_offset INTEGER NOT NULL,
  PRIMARY KEY (consumer_group, topic, partition)
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS members (
  consumer_group TEXT NOT NULL,
  member TEXT NOT NULL,
  process TEXT NOT NULL,
  topics TEXT NOT NULL,
  expires_at REAL NOT NULL,
  PRIMARY KEY (consumer_group, member)
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS leases (
  consumer_group TEXT NOT NULL,
  topic TEXT NOT NULL,
  partition INTEGER NOT NULL,
  member TEXT NOT NULL,
  PRIMARY KEY (consumer_group, topic, partition)
) WITHOUT ROWID
