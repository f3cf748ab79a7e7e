package daemon

import (
	"log/slog"

	"batchwarden/daemon/audit"
	"batchwarden/daemon/config"
	"batchwarden/platform/boottime"
)

// Program is which build this is.
type Program struct{ Version, Commit string }

func (p Program) service() *audit.Service {
	return &audit.Service{Version: p.Version, Commit: p.Commit, Boot: boottime.Boot()}
}

// started writes down that the service begins to serve, and with which configuration. Where that cannot be written
// nothing can, and nothing is granted: health says so.
func started(records *audit.Log, p Program, c *config.Config, log *slog.Logger) {
	err := records.Append(&audit.Record{Kind: audit.Started, Service: p.service(), Config: &audit.Config{SHA256: c.SHA256, By: audit.ByStart}})
	if err != nil {
		log.Error("audit record lost", "kind", audit.Started, "err", err)
	}
}

// stopped writes down that it has stopped serving; failure is why, nil when it was asked to.
func stopped(records *audit.Log, p Program, failure error, log *slog.Logger) {
	reason := "it was asked to"
	if failure != nil {
		reason = failure.Error()[:min(len(failure.Error()), 1024)]
	}
	if err := records.Append(&audit.Record{Kind: audit.Stopped, Service: p.service(), Reason: reason}); err != nil {
		log.Error("audit record lost", "kind", audit.Stopped, "err", err)
	}
}
