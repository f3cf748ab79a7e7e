package wire

// SetLogLevel is the body of POST /v1/log-level.
type SetLogLevel struct {
	Level string `json:"level"` // debug, info, warn or error
}

// LogLevel is how much the services log.
type LogLevel struct {
	Level    string `json:"level"`              // the daemon's
	Launcher string `json:"launcher,omitempty"` // the launcher's; empty when it could not be asked
	Detail   string `json:"detail,omitempty"`   // why it could not, or does not have the level
}
