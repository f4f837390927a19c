-- What the models took in and gave out, for drift, and their forecasts beside what came later.

-- Every figure that is watched for drift: (signal, patient_key, known_time, value).
CREATE VIEW signals AS
SELECT 'measurement: ' || concept || ' [' || unit || '], ' || method AS signal, patient_key, known_time, value FROM measurements
UNION ALL
SELECT 'risk: ' || json_extract_string(r, '$.name'), patient_key, known_time, CAST(json_extract_string(r, '$.value.value') AS DOUBLE)
FROM (SELECT patient_key, known_time, unnest(json_extract(data, '$.predictions.risks[*]')) AS r FROM prediction_ready)
WHERE json_extract_string(r, '$.value.value') IS NOT NULL
UNION ALL
SELECT 'forecast: probability of progression, ' || json_extract_string(f, '$.quantity'), patient_key, known_time,
       CAST(coalesce(json_extract_string(f, '$.probabilityOfProgression'), '0') AS DOUBLE)
FROM (SELECT patient_key, known_time, unnest(json_extract(data, '$.predictions.forecasts[*]')) AS f FROM prediction_ready)
WHERE json_extract(f, '$.refusal') IS NULL
UNION ALL
SELECT 'advice: priority', patient_key, known_time, CAST(coalesce(json_extract_string(data, '$.advice.priority'), '0') AS DOUBLE)
FROM recommendation_ready;

-- Every forecast with its curve and what it had seen.
CREATE VIEW forecasts AS
SELECT patient_key, known_time, json_extract_string(f, '$.quantity') AS quantity, json_extract(f, '$.observed') AS observed,
       json_extract(f, '$.curve') AS curve, json_extract(f, '$.progressionBy') AS progression_by
FROM (SELECT patient_key, known_time, unnest(json_extract(data, '$.predictions.forecasts[*]')) AS f FROM prediction_ready)
WHERE json_extract(f, '$.refusal') IS NULL;

-- Every judgement of response at a visit, by the latest advice of the patient.
CREATE VIEW response_visits AS
SELECT patient_key, criterion, CAST(json_extract_string(v, '$.at') AS TIMESTAMPTZ) AS visited_at,
       replace(json_extract_string(v, '$.category'), 'RESPONSE_CATEGORY_', '') AS category
FROM (
  SELECT patient_key, json_extract_string(a, '$.criterion') AS criterion, unnest(json_extract(a, '$.visits[*]')) AS v
  FROM (
    SELECT patient_key, unnest(json_extract(data, '$.advice.responses[*]')) AS a FROM recommendation_ready
    QUALIFY row_number() OVER (PARTITION BY patient_key
      ORDER BY CAST(coalesce(json_extract_string(data, '$.advice.snapshotRevision'), '0') AS BIGINT) DESC, known_time DESC) = 1
  )
);
