-- What readers did with what imaging found: the monitoring of models by the people who use them. The board announces a
-- study's findings again when a reader has accepted, corrected or rejected one; a rejected finding is not among them.

-- One row for each finding of imaging's latest analysis of a study, with a reader's word on it.
CREATE VIEW finding_reviews AS
WITH announced AS (
  SELECT patient_key, source, known_time, data, json_extract_string(data, '$.findings.studyInstanceUid') AS study_instance_uid,
         CAST(coalesce(json_extract_string(data, '$.findings.studyRevision'), '0') AS INTEGER) AS revision
  FROM findings_ready
), latest AS (
  SELECT * FROM announced
  QUALIFY row_number() OVER (PARTITION BY study_instance_uid, source ORDER BY revision DESC, known_time DESC) = 1
), found AS (
  SELECT patient_key, study_instance_uid, revision, known_time AS found_time,
         unnest(json_extract(data, '$.findings.findings[*]')) AS finding
  FROM latest WHERE source = '/osler/imaging'
), told AS (
  SELECT study_instance_uid, unnest(json_extract(data, '$.findings.findings[*]')) AS finding
  FROM latest WHERE source = '/osler/board'
), readers AS (
  SELECT study_instance_uid, revision, known_time FROM latest WHERE source = '/osler/board'
)
SELECT f.patient_key, f.study_instance_uid, json_extract_string(f.finding, '$.findingId') AS finding_id,
       json_extract_string(f.finding, '$.provenance.method') AS method, json_extract_string(f.finding, '$.kind') AS kind, f.found_time,
       CASE
         WHEN r.revision IS NULL OR r.revision < f.revision THEN 'unreviewed'
         WHEN t.finding IS NULL THEN 'rejected'
         ELSE coalesce(json_extract_string(t.finding, '$.provenance.parameters.review'), 'unreviewed')
       END AS outcome,
       json_extract_string(t.finding, '$.provenance.parameters.review_reason') AS reason,
       r.known_time AS reviewed_time
FROM found f
LEFT JOIN readers r USING (study_instance_uid)
LEFT JOIN told t ON t.study_instance_uid = f.study_instance_uid
  AND json_extract_string(t.finding, '$.findingId') = json_extract_string(f.finding, '$.findingId');

-- How often readers overrode each method (model and version). `override_share`: corrected or rejected, of those reviewed.
CREATE VIEW overrides_by_method AS
SELECT method, count(*) AS findings, count(*) FILTER (WHERE outcome <> 'unreviewed') AS reviewed,
       count(*) FILTER (WHERE outcome = 'accepted') AS accepted, count(*) FILTER (WHERE outcome = 'corrected') AS corrected,
       count(*) FILTER (WHERE outcome = 'rejected') AS rejected,
       count(*) FILTER (WHERE outcome IN ('corrected', 'rejected')) / nullif(count(*) FILTER (WHERE outcome <> 'unreviewed'), 0)
         AS override_share
FROM finding_reviews GROUP BY method;
