//! The box: bring-up, identity, MQTT session, commands, updates; S3 intake and uplink.
