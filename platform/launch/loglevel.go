package launch

import "context"

// LogLevel changes how much the launcher logs: debug, info, warn or error; "" leaves it. It returns the level now.
func (l *Launcher) LogLevel(ctx context.Context, name string) (string, error) {
	a, err := l.ask(ctx, Request{Call: CallLogLevel, Level: name})
	return a.Level, err
}
