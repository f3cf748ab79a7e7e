package testbed

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
)

// relayEnv tells the process inside where to listen and, after a blank, which socket to connect to.
const relayEnv = "BATCHWARDEN_TESTBED_RELAY"

// A relay brings connections from a machine without a network to a server on this one. Files are seen from both, so
// they meet at a Unix socket.
type relay struct {
	socket net.Listener
	inside *exec.Cmd
}

// Relay lets the machine reach a server of ours on 127.0.0.1 at the same address, until the machine ends.
func (m *Booted) Relay(address string) (err error) {
	path := m.bed.Root + "/relay.sock"
	socket, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	go passOn(socket, "tcp", address) // ends with the socket
	cmd := exec.Command("nsenter", "--target", fmt.Sprint(m.leader), "--net", "--", fmt.Sprintf("/proc/%d/exe", os.Getpid()))
	cmd.Env = append(Root.environ(), roleEnv+"="+roleRelay, relayEnv+"="+address+" "+path)
	cmd.Dir, cmd.Stderr = "/", os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	said, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return errors.Join(err, socket.Close())
	}
	m.relay = &relay{socket, cmd}
	if _, err := bufio.NewReader(said).ReadString('\n'); err != nil {
		return fmt.Errorf("the relay in the machine does not listen: %w", err)
	}
	return nil
}

func (r *relay) close() {
	if r == nil {
		return
	}
	_ = r.socket.Close()        // nothing was written through it
	_ = r.inside.Process.Kill() // fails only when it has ended
	_ = r.inside.Wait()         // it was killed
}

// relayInside is the process in the machine's network namespace.
func relayInside() error {
	address, path, _ := strings.Cut(os.Getenv(relayEnv), " ")
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	fmt.Println("listening")
	passOn(l, "unix", path)
	return nil
}

// passOn connects each connection of l to an address, until l is closed.
func passOn(l net.Listener, network, address string) {
	for {
		from, err := l.Accept()
		if err != nil {
			return
		}
		go func() { // ends with the connection
			defer from.Close()
			to, err := net.Dial(network, address)
			if err != nil {
				return // whoever asked sees the connection end
			}
			defer to.Close()
			over := make(chan struct{}, 2)
			for _, way := range [][2]net.Conn{{from, to}, {to, from}} {
				go func() { // ends with either
					_, _ = io.Copy(way[0], way[1]) // an error ends it like the end of input
					over <- struct{}{}
				}()
			}
			<-over
		}()
	}
}
