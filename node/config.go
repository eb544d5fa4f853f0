package node

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/weirmesh/weir/identity"
	"github.com/weirmesh/weir/internal/handover"
	"github.com/weirmesh/weir/policy/wasm"
	"github.com/weirmesh/weir/proto/weir/v1/weirv1connect"
)

// Config says what to run. At least one of Server, Edge and Sidecar is set; a server and
// an edge together are one that joins the other. A sidecar is alone.
type Config struct {
	// Data is the directory that holds everything.
	Data string
	// Compiled is where compiled modules are kept, which are executed: only this
	// user may write there. Empty: below Data.
	Compiled string
	Version  string
	Logger   *slog.Logger
	// Out gets the line that says that all is ready, and nothing else.
	Out io.Writer

	Server  *ServerConfig
	Edge    *EdgeConfig
	Sidecar *SidecarConfig
	// Inherited is what the process before has passed to this one; nil: nothing.
	Inherited *handover.Inheritance
	// Upgrade asks a proxy to hand over to a process of Program; nil: nobody does.
	Upgrade <-chan os.Signal
	Program handover.Program
	// Demo runs the bookshop behind it all and tells Hints what to try.
	Demo  bool
	Hints io.Writer
	// Task runs beside an open server and its edge once both serve, and ends when
	// its context does; the process ends with its error. Nil: there is none.
	Task func(context.Context, weirv1connect.AdminServiceClient) error
}

// ServerConfig is a member of the control cluster.
type ServerConfig struct {
	Name string
	// Node and Admin are the addresses of the node port (UDP and TCP) and the admin
	// API (TCP).
	Node, Admin string
	// Open admits the admin API in the clear, without a token, from this host
	// alone. Else it is TLS, and always wants a token.
	Open bool
	// Starter is where a gateway "public" listens that is declared where nothing
	// ever was; empty: none is.
	Starter string

	// How it begins when its directory is empty, in one of three ways: Bootstrap
	// founds a cluster alone; BootstrapExpect founds one together with the
	// servers at Join, of which there are so many, itself included; Join alone
	// joins the cluster of the servers there, by Token. A server that has begun
	// needs none of it, and uses Join to find the others again.
	Bootstrap       bool
	BootstrapExpect int
	Join            []string
	Token           string
	// Advertise is where the other nodes find this one; empty: at Node.
	Advertise string
	// DeadAfter is how long a member may be away before the leader removes it.
	// 0: 72 h; negative: for ever.
	DeadAfter time.Duration
	// CertificateLifetime is how long the certificates that this server issues are
	// good for, between [identity.MinLeafLifetime] and [identity.LeafLifetime].
	// 0: the latter.
	CertificateLifetime time.Duration
}

// EdgeConfig is a proxy at the edge.
type EdgeConfig struct {
	Name    string
	Servers []string
	// Token admits it the first time; later its own key does.
	Token  string
	Labels map[string]string
	// Admin is where the proxy serves its metrics and health; empty: nowhere.
	Admin string
	// Drain is how long requests in flight may take when the edge stops or hands
	// over; 0: 10 s.
	Drain time.Duration
	// AccessLog gets a line for each request; nil: nobody does.
	AccessLog io.Writer
	// MemoryLimit is what the process may have, in bytes. 0: what its control group
	// may have; below 0: there is none.
	MemoryLimit int64
	// MaxConnections of clients; 0: what there are file descriptors for.
	MaxConnections int
	// PluginKeys: one of them must have signed each plugin's module, whatever the
	// servers declare. None: what they declare.
	PluginKeys []ed25519.PublicKey
	// PluginLimits bound what plugins may take in this process.
	PluginLimits wasm.Caps
}

// Validate says what is wrong with the settings.
func (c Config) Validate() error {
	var errs []error
	if c.Data == "" {
		errs = append(errs, errors.New("no data directory is given"))
	}
	if c.Server == nil && c.Edge == nil && c.Sidecar == nil {
		errs = append(errs, errors.New("neither a server nor an edge is asked for"))
	}
	if c.Sidecar != nil {
		if c.Server != nil || c.Edge != nil {
			errs = append(errs, errors.New("a sidecar runs in a process of its own"))
		}
		errs = append(errs, c.Sidecar.validate(), c.Sidecar.EdgeConfig.validate(false))
	}
	dev := c.Server != nil && c.Edge != nil && c.Server.Open
	if c.Task != nil && !dev {
		errs = append(errs, errors.New("a task needs an open server and an edge in one process"))
	}
	if c.Demo && !dev {
		errs = append(errs, errors.New("the demo needs an open server and an edge in one process"))
	}
	if s := c.Server; s != nil {
		errs = append(errs, identity.ValidName(s.Name), checkAddress("node", s.Node), checkAddress("admin", s.Admin))
		errs = append(errs, s.validateBeginning())
		if l := s.CertificateLifetime; l != 0 && (l < identity.MinLeafLifetime || l > identity.LeafLifetime) {
			errs = append(errs, fmt.Errorf("certificates may be good for between %s and %s, not for %s", identity.MinLeafLifetime, identity.LeafLifetime, l))
		}
		if s.Starter != "" {
			errs = append(errs, checkAddress("gateway", s.Starter))
		}
	}
	if c.Edge != nil {
		errs = append(errs, c.Edge.validate(c.Server != nil))
	}
	return errors.Join(errs...)
}

// validate says what is wrong with a proxy's settings; withServer: one runs beside it.
func (e *EdgeConfig) validate(withServer bool) error {
	errs := []error{identity.ValidName(e.Name), e.PluginLimits.Validate()}
	if len(e.Servers) == 0 && !withServer {
		errs = append(errs, errors.New("a proxy needs the address of a server"))
	}
	for _, s := range e.Servers {
		errs = append(errs, checkAddress("server", s))
	}
	if e.Admin != "" {
		errs = append(errs, checkAddress("proxy admin", e.Admin))
	}
	return errors.Join(errs...)
}

func checkAddress(what, address string) error {
	if _, _, err := net.SplitHostPort(address); err != nil {
		return fmt.Errorf("%s address %q is not HOST:PORT", what, address)
	}
	return nil
}

// reachable is an address to dial for one that was listened on: of every
// address of this host it takes the loopback one.
func reachable(listened net.Addr) string {
	host, port, err := net.SplitHostPort(listened.String())
	if err != nil {
		return listened.String()
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}
