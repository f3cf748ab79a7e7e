package keeper

import (
	"context"
	"fmt"
	"log/slog"
	"strings"

	"batchwarden/platform/launch"
)

// logLevel changes what is logged, if name says to what, and returns what it is then.
func (k *keeper) logLevel(ctx context.Context, name string) (string, error) {
	if k.Level == nil {
		return "", &launch.Refused{Code: launch.CodeInvalid, Reason: "this launcher's log has no level"}
	}
	if name != "" {
		var l slog.Level
		if err := l.UnmarshalText([]byte(name)); err != nil {
			return "", &launch.Refused{Code: launch.CodeInvalid, Reason: fmt.Sprintf("there is no level %q", name)}
		}
		k.Level.Set(l)
		k.Log.Log(ctx, l, "the log's level was changed by the daemon", "level", name)
	}
	return strings.ToLower(k.Level.Level().String()), nil
}
