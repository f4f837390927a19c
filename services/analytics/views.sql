-- Figures over the event views (study_received, findings_ready, ...). Times are UTC.

-- Every event in one place.
CREATE VIEW events AS
SELECT * FROM study_received UNION ALL SELECT * FROM record_received UNION ALL SELECT * FROM patient_merged
UNION ALL SELECT * FROM findings_ready UNION ALL SELECT * FROM registration_ready UNION ALL SELECT * FROM patient_updated
UNION ALL SELECT * FROM prediction_ready UNION ALL SELECT * FROM recommendation_ready UNION ALL SELECT * FROM alert_feedback;

-- How much of what, by day.
CREATE VIEW volumes AS
SELECT CAST(known_time AS DATE) AS day, event_type, count(*) AS events, count(DISTINCT patient_key) AS patients
FROM events GROUP BY ALL ORDER BY day, event_type;

-- From the stored study to its findings.
CREATE VIEW turnaround AS
SELECT json_extract_string(s.data, '$.studyInstanceUid') AS study_instance_uid,
       s.known_time AS received_time, f.known_time AS findings_time,
       date_diff('millisecond', s.known_time, f.known_time) / 1000.0 AS seconds
FROM study_received s
JOIN findings_ready f
  ON json_extract_string(f.data, '$.findings.studyInstanceUid') = json_extract_string(s.data, '$.studyInstanceUid')
 AND coalesce(json_extract_string(f.data, '$.findings.studyRevision'), '0') = json_extract_string(s.data, '$.revision');

-- One row for each finding.
CREATE VIEW findings AS
SELECT patient_key, json_extract_string(finding, '$.studyInstanceUid') AS study_instance_uid,
       json_extract_string(finding, '$.kind') AS kind, json_extract_string(finding, '$.trackingId') AS tracking_id, finding
FROM (SELECT patient_key, unnest(json_extract(data, '$.findings.findings[*]')) AS finding FROM findings_ready);

-- One row for each recommendation of the latest advice.
CREATE VIEW recommendations AS
SELECT patient_key, json_extract_string(r, '$.ruleId') AS rule_id, json_extract_string(r, '$.urgency') AS urgency,
       json_extract_string(r, '$.summary') AS summary
FROM (
  SELECT patient_key, unnest(json_extract(data, '$.advice.recommendations[*]')) AS r
  FROM (SELECT *, row_number() OVER (PARTITION BY patient_key ORDER BY CAST(coalesce(json_extract_string(data, '$.advice.snapshotRevision'), '0') AS BIGINT) DESC, known_time DESC) AS n
        FROM recommendation_ready) WHERE n = 1
);

-- What clinicians did with the cards.
CREATE VIEW card_outcomes AS
SELECT json_extract_string(data, '$.ruleId') AS rule_id, json_extract_string(data, '$.outcome') AS outcome, count(*) AS cards
FROM alert_feedback GROUP BY ALL ORDER BY rule_id, outcome;

-- Registrations by verdict.
CREATE VIEW registrations AS
SELECT patient_key, json_extract_string(data, '$.registration.pair.fixed.modality') AS fixed,
       json_extract_string(data, '$.registration.pair.moving.modality') AS moving,
       coalesce(json_extract_string(data, '$.registration.quality.verdict'), 'REFUSED') AS verdict,
       CAST(json_extract_string(data, '$.registration.durationS') AS DOUBLE) AS seconds
FROM registration_ready;
