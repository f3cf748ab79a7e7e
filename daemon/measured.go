package daemon

import (
	"context"
	"net"
	"os"
	"time"

	"batchwarden/daemon/broker"
	"batchwarden/daemon/metrics"
	"batchwarden/ipc/server"
	"batchwarden/ipc/wire"
	"batchwarden/platform/peer"
	"batchwarden/platform/service"
)

// measured is the broker with a clock beside it, for the calls that jobs wait
// for, and what each request counts for.
type measured struct {
	server.Broker
	metrics    *metrics.Metrics
	processors *service.Processors
}

func (m measured) Admit(ctx context.Context, p *peer.Connection) (leave func(), err error) {
	m.processors.Asked()
	if leave, err = m.Broker.Admit(ctx, p); err != nil {
		m.metrics.Overloaded()
	}
	return leave, err
}

func (m measured) Authorize(ctx context.Context, p *peer.Connection, body *wire.Authorize, explain bool) (wire.Decision, error) {
	begun := time.Now()
	d, err := m.Broker.Authorize(ctx, p, body, explain)
	m.metrics.Called(metrics.Authorize, time.Since(begun), err)
	return d, err
}

func (m measured) Retrieve(ctx context.Context, p *peer.Connection, name string, body *wire.Retrieve, deliver broker.Deliver) error {
	begun := time.Now()
	err := m.Broker.Retrieve(ctx, p, name, body, deliver)
	m.metrics.Called(metrics.Retrieve, time.Since(begun), err)
	return err
}

func (m measured) Launch(ctx context.Context, p *peer.Connection, conn *net.UnixConn, body *wire.Launch, stdio []*os.File) (job wire.Job, again bool, err error) {
	begun := time.Now()
	job, again, err = m.Broker.Launch(ctx, p, conn, body, stdio)
	m.metrics.Called(metrics.Launch, time.Since(begun), err)
	return job, again, err
}
