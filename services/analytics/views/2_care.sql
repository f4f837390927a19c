-- What was found and advised, and what clinicians did with it.

-- Findings of the latest analysis of each study: a corrected or repeated one takes the place of what came before.
CREATE VIEW latest_findings AS
SELECT patient_key, json_extract_string(data, '$.findings.studyInstanceUid') AS study_instance_uid, known_time, data
FROM findings_ready
QUALIFY row_number() OVER (PARTITION BY study_instance_uid
  ORDER BY CAST(coalesce(json_extract_string(data, '$.findings.studyRevision'), '0') AS INTEGER) DESC, known_time DESC) = 1;

-- One row for each finding.
CREATE VIEW findings AS
SELECT patient_key, json_extract_string(finding, '$.studyInstanceUid') AS study_instance_uid,
       json_extract_string(finding, '$.kind') AS kind, json_extract_string(finding, '$.trackingId') AS tracking_id,
       json_extract_string(finding, '$.provenance.method') AS method, known_time, finding
FROM (SELECT patient_key, known_time, unnest(json_extract(data, '$.findings.findings[*]')) AS finding FROM latest_findings);

-- One row for each measurement of a finding.
CREATE VIEW measurements AS
SELECT patient_key, study_instance_uid, kind, method, known_time,
       json_extract_string(m, '$.concept.display') AS concept, json_extract_string(m, '$.value.unit') AS unit,
       CAST(json_extract_string(m, '$.value.value') AS DOUBLE) AS value
FROM (SELECT *, unnest(json_extract(finding, '$.measurements[*]')) AS m FROM findings);

-- One row for each series that was checked.
CREATE VIEW series_quality AS
SELECT patient_key, study_instance_uid, known_time, json_extract_string(q, '$.seriesInstanceUid') AS series_instance_uid,
       replace(json_extract_string(q, '$.verdict'), 'QUALITY_VERDICT_', '') AS verdict,
       json_extract_string(q, '$.issues[*].code') AS issues
FROM (SELECT *, unnest(json_extract(data, '$.findings.quality[*]')) AS q FROM latest_findings);

-- Registrations by verdict.
CREATE VIEW registrations AS
SELECT patient_key, json_extract_string(data, '$.registration.pair.fixed.modality') AS fixed,
       json_extract_string(data, '$.registration.pair.moving.modality') AS moving,
       coalesce(json_extract_string(data, '$.registration.quality.verdict'), 'REFUSED') AS verdict,
       CAST(json_extract_string(data, '$.registration.durationS') AS DOUBLE) AS seconds
FROM registration_ready;

-- Every recommendation that was ever made: when first and last, and for when.
CREATE VIEW recommendations_made AS
SELECT patient_key, json_extract_string(r, '$.ruleId') AS rule_id, json_extract_string(r, '$.category') AS category,
       arg_max(json_extract_string(r, '$.urgency'), known_time) AS urgency,
       arg_max(json_extract_string(r, '$.summary'), known_time) AS summary,
       json_extract_string(r, '$.proposedOrder.code') AS order_code,
       CAST(json_extract_string(r, '$.dueAt') AS TIMESTAMPTZ) AS due_at, min(known_time) AS first_made, max(known_time) AS last_made
FROM (SELECT patient_key, known_time, unnest(json_extract(data, '$.advice.recommendations[*]')) AS r FROM recommendation_ready)
GROUP BY ALL;

-- One row for each recommendation of the latest advice.
CREATE VIEW recommendations AS
SELECT patient_key, json_extract_string(r, '$.ruleId') AS rule_id, json_extract_string(r, '$.urgency') AS urgency,
       json_extract_string(r, '$.summary') AS summary
FROM (
  SELECT patient_key, unnest(json_extract(data, '$.advice.recommendations[*]')) AS r FROM recommendation_ready
  QUALIFY row_number() OVER (PARTITION BY patient_key
    ORDER BY CAST(coalesce(json_extract_string(data, '$.advice.snapshotRevision'), '0') AS BIGINT) DESC, known_time DESC) = 1
);

-- Was the imaging that was advised done? "done": a study of the modality between the advice and two weeks after its date;
-- "open": the date is still to come or less than two weeks past. Orders whose modality is not listed are not judged.
CREATE VIEW adherence AS
WITH advised AS (
  SELECT m.*, o.modality, p.patient_key AS person FROM recommendations_made m
  JOIN order_modality o ON o.code = m.order_code LEFT JOIN people p ON p.key = m.patient_key
  WHERE due_at IS NOT NULL
)
SELECT a.patient_key, a.rule_id, a.modality, a.first_made, a.due_at, min(s.study_time) AS done_at,
       CASE WHEN min(s.study_time) IS NOT NULL THEN 'done'
            WHEN a.due_at + INTERVAL 14 DAY >= now() THEN 'open' ELSE 'not done' END AS outcome
FROM advised a
LEFT JOIN studies s ON coalesce((SELECT p.patient_key FROM people p WHERE p.key = s.patient_key), s.patient_key) = coalesce(a.person, a.patient_key)
 AND list_contains(s.modalities, a.modality) AND s.study_time > a.first_made AND s.study_time <= a.due_at + INTERVAL 14 DAY
GROUP BY a.patient_key, a.rule_id, a.modality, a.first_made, a.due_at;

CREATE VIEW adherence_by_rule AS
SELECT rule_id, count(*) FILTER (WHERE outcome = 'done') AS done, count(*) FILTER (WHERE outcome = 'not done') AS not_done,
       count(*) FILTER (WHERE outcome = 'open') AS still_open
FROM adherence GROUP BY rule_id ORDER BY rule_id;

-- What clinicians did with the cards: the last word on each card counts.
CREATE VIEW card_words AS
SELECT patient_key, json_extract_string(data, '$.cardId') AS card_id, json_extract_string(data, '$.ruleId') AS rule_id,
       json_extract_string(data, '$.outcome') AS outcome, json_extract_string(data, '$.overrideReasonCode') AS reason, known_time
FROM alert_feedback
QUALIFY row_number() OVER (PARTITION BY card_id ORDER BY CAST(json_extract_string(data, '$.outcomeAt') AS TIMESTAMPTZ) DESC NULLS LAST, known_time DESC) = 1;

CREATE VIEW card_outcomes AS
SELECT rule_id, outcome, count(*) AS cards FROM card_words GROUP BY ALL ORDER BY rule_id, outcome;

CREATE VIEW alert_acceptance AS
SELECT rule_id, count(*) AS answered, count(*) FILTER (WHERE outcome = 'accepted') AS accepted,
       count(*) FILTER (WHERE outcome = 'accepted') / count(*) AS share, mode(reason) FILTER (WHERE reason <> '') AS commonest_override
FROM card_words GROUP BY rule_id ORDER BY rule_id;

-- Imaging that was not repeated: a warning of a duplicate that was accepted, and no study for the patient within a week.
CREATE VIEW duplicates_avoided AS
SELECT w.rule_id, count(*) AS warnings, count(*) FILTER (WHERE outcome = 'accepted') AS accepted,
       count(*) FILTER (WHERE outcome = 'accepted' AND NOT EXISTS (
         SELECT 1 FROM studies s WHERE s.patient_key = w.patient_key
           AND s.study_time BETWEEN w.known_time AND w.known_time + INTERVAL 7 DAY)) AS avoided
FROM card_words w WHERE w.rule_id LIKE 'duplicate.%' GROUP BY w.rule_id ORDER BY w.rule_id;
