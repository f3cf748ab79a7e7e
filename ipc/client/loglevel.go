package client

import (
	"context"

	"batchwarden/ipc/wire"
)

// LogLevel says how much the service and its launcher log. For operators.
func (c *Client) LogLevel(ctx context.Context) (*wire.LogLevel, error) {
	return get[wire.LogLevel](ctx, c, "/v1/log-level")
}

// SetLogLevel changes that to debug, info, warn or error, until they start again or their configuration says otherwise.
func (c *Client) SetLogLevel(ctx context.Context, level string) (*wire.LogLevel, error) {
	return post[wire.LogLevel](ctx, c, "/v1/log-level", wire.SetLogLevel{Level: level})
}
