-- What came in and how long it took. Times are UTC. Built on the event views (study_received, findings_ready, ...).

-- How much of what, by day.
CREATE VIEW volumes AS
SELECT CAST(known_time AS DATE) AS day, event_type, count(*) AS events, count(DISTINCT patient_key) AS patients
FROM events GROUP BY ALL ORDER BY day, event_type;

-- One row for each patient as known last, under each key that stood for them.
CREATE VIEW people AS
WITH latest AS (
  SELECT * FROM patient_updated
  QUALIFY row_number() OVER (PARTITION BY patient_key
    ORDER BY CAST(coalesce(json_extract_string(data, '$.revision'), '0') AS BIGINT) DESC, known_time DESC) = 1
), said AS (
  SELECT patient_key AS key, patient_key, context, known_time FROM latest
  UNION ALL
  SELECT unnest(json_extract_string(data, '$.mergedPatientKeys[*]')) AS key, patient_key, context, known_time FROM latest
)
SELECT key, patient_key, coalesce(json_extract_string(context, '$.sex'), 'unknown') AS sex,
       CAST(json_extract_string(context, '$.birth_year') AS INTEGER) AS birth_year
FROM said QUALIFY row_number() OVER (PARTITION BY key ORDER BY known_time DESC) = 1;

-- One row for each study, at its latest revision.
CREATE VIEW studies AS
SELECT s.patient_key, json_extract_string(data, '$.studyInstanceUid') AS study_instance_uid,
       CAST(json_extract_string(data, '$.revision') AS INTEGER) AS revision,
       CAST(json_extract_string(data, '$.studyTime') AS TIMESTAMPTZ) AS study_time,
       min(known_time) OVER (PARTITION BY json_extract_string(data, '$.studyInstanceUid')) AS received_time,
       json_extract_string(data, '$.modalities[*]') AS modalities,
       coalesce(json_extract_string(context, '$.manufacturer'), 'unknown') AS manufacturer,
       coalesce(json_extract_string(context, '$.scanner'), 'unknown') AS scanner,
       coalesce(json_extract_string(context, '$.site'), 'unknown') AS site,
       coalesce(p.sex, 'unknown') AS sex,
       CASE WHEN p.birth_year IS NULL THEN 'unknown' ELSE
         CASE WHEN year(coalesce(study_time, known_time)) - p.birth_year < 18 THEN '0-17'
              WHEN year(coalesce(study_time, known_time)) - p.birth_year < 40 THEN '18-39'
              WHEN year(coalesce(study_time, known_time)) - p.birth_year < 65 THEN '40-64'
              WHEN year(coalesce(study_time, known_time)) - p.birth_year < 80 THEN '65-79' ELSE '80 and over' END
       END AS age
FROM study_received s LEFT JOIN people p ON p.key = s.patient_key
QUALIFY row_number() OVER (PARTITION BY study_instance_uid ORDER BY revision DESC, known_time DESC) = 1;

-- From the stored study to its findings.
CREATE VIEW turnaround AS
SELECT json_extract_string(s.data, '$.studyInstanceUid') AS study_instance_uid,
       s.known_time AS received_time, f.known_time AS findings_time,
       date_diff('millisecond', s.known_time, f.known_time) / 1000.0 AS seconds
FROM study_received s
JOIN findings_ready f
  ON json_extract_string(f.data, '$.findings.studyInstanceUid') = json_extract_string(s.data, '$.studyInstanceUid')
 AND coalesce(json_extract_string(f.data, '$.findings.studyRevision'), '0') = json_extract_string(s.data, '$.revision');

-- How long each step takes after what set it off, by the trace that both belong to.
CREATE VIEW turnaround_by_step AS
WITH told AS (
  SELECT split_part(traceparent, '-', 2) AS trace, event_type, min(known_time) AS at FROM events
  WHERE traceparent <> '' GROUP BY ALL
), steps(step, cause, effect) AS (VALUES
  ('1 study to findings', 'osler.study.received.v1', 'osler.findings.ready.v1'),
  ('2 study to registration', 'osler.study.received.v1', 'osler.registration.ready.v1'),
  ('3 findings to patient', 'osler.findings.ready.v1', 'osler.patient.updated.v1'),
  ('4 record to patient', 'osler.record.received.v1', 'osler.patient.updated.v1'),
  ('5 patient to prediction', 'osler.patient.updated.v1', 'osler.prediction.ready.v1'),
  ('6 prediction to recommendation', 'osler.prediction.ready.v1', 'osler.recommendation.ready.v1'),
  ('7 study to recommendation', 'osler.study.received.v1', 'osler.recommendation.ready.v1'))
SELECT step, count(*) AS runs,
       quantile_cont(date_diff('millisecond', a.at, b.at) / 1000.0, 0.5) AS median_s,
       quantile_cont(date_diff('millisecond', a.at, b.at) / 1000.0, 0.95) AS p95_s,
       max(date_diff('millisecond', a.at, b.at) / 1000.0) AS longest_s
FROM steps JOIN told a ON a.event_type = cause JOIN told b ON b.event_type = effect AND b.trace = a.trace AND b.at >= a.at
GROUP BY step ORDER BY step;

-- Events that came long after what they tell happened.
CREATE VIEW late_events AS
SELECT event_type, count(*) AS events, count(*) FILTER (WHERE known_time - event_time > INTERVAL 1 DAY) AS later_than_a_day,
       quantile_cont(date_diff('second', event_time, known_time), 0.95) AS p95_delay_s
FROM events GROUP BY event_type ORDER BY event_type;
