-- What the role of the service needs where another role has run schema.sql. Run by psql
-- as the role that owns the schema, with the name of the role in place of
-- sekali_service.
GRANT USAGE ON SCHEMA sekali TO sekali_service;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA sekali TO sekali_service;
GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA sekali TO sekali_service;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA sekali TO sekali_service;
