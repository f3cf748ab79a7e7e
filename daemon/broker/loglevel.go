package broker

import (
	"context"

	"batchwarden/daemon/logs"
	"batchwarden/ipc/wire"
	"batchwarden/platform/peer"
)

// LogLevel says how much the daemon and the launcher log, and changes it in
// both when body says to what. A launcher that cannot be asked changes nothing
// of the daemon's own: who looks for the reason wants to see more of it.
func (b *Broker) LogLevel(ctx context.Context, p *peer.Connection, body *wire.SetLogLevel) (wire.LogLevel, error) {
	c := b.identify(ctx, p)
	if refusal := c.isOperator(); refusal != nil {
		return wire.LogLevel{}, refusal
	}
	var to string
	if body != nil {
		level, err := logs.Level(body.Level)
		if err != nil {
			return wire.LogLevel{}, wire.Invalid("level", err.Error())
		}
		to = body.Level
		b.Level.Set(level)
		b.Log.Log(ctx, level, "the log's level was changed", "level", to, "by", c.user) // at a level that shows it
	}
	now := wire.LogLevel{Level: logs.Name(b.Level.Level())}
	var err error
	if now.Launcher, err = b.Launcher.LogLevel(ctx, to); err != nil {
		now.Detail = err.Error()
	}
	return now, nil
}
