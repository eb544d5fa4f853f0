package websocket

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"flag"
	"fmt"
	"maps"
	"math/big"
	randv2 "math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
	"github.com/weirmesh/weir/test/edge"
)

var (
	seed  = flag.Uint64("seed", 1, "decides the order, and what is left out")
	whole = flag.Bool("whole", false, "every case in every way")
)

// way is how a client reaches a server.
type way struct {
	name  string
	base  string // of the URL; empty: the server's own
	ca    string
	http2 bool
}

// ways starts two edges, which take a path's first part for the server's name.
func ways(t *testing.T, addresses map[string]string) []way {
	var resources []resource.Message
	for name, address := range addresses {
		resources = append(resources, edge.Service(name, address), edge.Route(name, "/"+name, name))
	}
	plain := edge.Start(t, resources...)
	certificate, ca := selfSigned(t)
	gateway := &weirv1.Gateway{Metadata: &weirv1.Metadata{Name: "public"}, Spec: &weirv1.GatewaySpec{
		Listeners: []*weirv1.Listener{{Name: "https", Port: 443, Protocol: weirv1.Listener_HTTPS, Http3: proto.Bool(false),
			Tls: &weirv1.ListenerTLS{CertificateRefs: []*weirv1.CertificateRef{{Name: "edge"}}}}}}}
	secure := edge.Start(t, append(resources, gateway, certificate)...)
	_, port, err := net.SplitHostPort(secure.Addr)
	if err != nil {
		t.Fatal(err)
	}
	return []way{
		{name: "by HTTP/1.1", base: "ws://" + plain.Addr},
		{name: "by TLS", base: "wss://localhost:" + port, ca: ca},
		{name: "by HTTP/2", base: "wss://localhost:" + port, ca: ca, http2: true},
	}
}

func selfSigned(t *testing.T) (c *weirv1.Certificate, file string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return &weirv1.Certificate{Metadata: &weirv1.Metadata{Name: "edge"}, Spec: &weirv1.CertificateSpec{Hostnames: []string{"localhost"}},
		Material: &weirv1.CertificateMaterial{Chain: [][]byte{der}, Key: private}}, file
}

// Every client with every server.
func TestWebSocket(t *testing.T) {
	t.Logf("-seed %d", *seed)
	at, addresses := servers(t)
	edges := ways(t, addresses)
	t.Run("clients", func(t *testing.T) {
		for i, p := range peers {
			t.Run(p.name, func(t *testing.T) {
				t.Parallel()
				client := p.run(t, "client")
				random := randv2.New(randv2.NewPCG(*seed, uint64(i)))
				for _, c := range shuffled(random, at) {
					through := fit(edges, p.name, c)
					if !*whole {
						through = []way{through[random.IntN(len(through))]}
					}
					t.Run(c.server+"/"+c.name, func(t *testing.T) {
						p := pair{p.name, client, at[c.server], addresses[c.server]}
						p.test(t, c, through)
					})
				}
			})
		}
	})
}

// fit are the ways that a client can go with a case.
func fit(edges []way, client string, c drawn) (all []way) {
	for _, w := range edges {
		if (!w.http2 || client == "coder") && (w.ca == "" || !c.plain) {
			all = append(all, w)
		}
	}
	return all
}

// drawn is a case and the server to meet.
type drawn struct {
	testCase
	server string
}

// shuffled is what a client does: each case with each server, or with one that
// is drawn.
func shuffled(random *randv2.Rand, at map[string]*program) (all []drawn) {
	names := slices.Sorted(maps.Keys(at))
	for _, c := range cases() {
		if *whole {
			for _, name := range names {
				all = append(all, drawn{c, name})
			}
		} else if !c.large {
			all = append(all, drawn{c, names[random.IntN(len(names))]})
		}
	}
	random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all
}

// pair is a client and a server.
type pair struct {
	clientName     string
	client, server *program
	address        string
}

var conversations atomic.Uint64

// test runs a case without an edge and then through some.
func (p pair) test(t *testing.T, c drawn, through []way) {
	direct := way{name: "directly", base: "ws://" + p.address}
	client, server := p.converse(t, c, direct)
	c.require(t, p.clientName, client, server)
	for _, w := range through {
		t.Run(w.name, func(t *testing.T) {
			gotClient, gotServer := p.converse(t, c, w)
			same(t, "client", gotClient, client)
			same(t, "server", gotServer, server)
		})
	}
}

func same(t *testing.T, who string, got, want outcome) {
	t.Helper()
	got.ID = want.ID
	if !reflect.DeepEqual(got, want) {
		t.Errorf("the %s tells %.1000s;\nwithout an edge it tells %.1000s", who, show(got), show(want))
	}
}

func show(o outcome) string { return fmt.Sprintf("%+v", o) }

func (p pair) converse(t *testing.T, c drawn, w way) (client, server outcome) {
	t.Helper()
	j := c.job(conversations.Add(1))
	j.URL, j.CA, j.HTTP2 = w.base+"/"+c.server+"/"+j.URL, w.ca, w.http2
	p.client.do(t, j)
	client = p.client.await(t, j.ID)
	if client.Status != 0 {
		t.Fatalf("%s, the client is answered %d", w.name, client.Status)
	}
	server = p.server.await(t, j.ID)
	if client.Stuck != "" {
		t.Errorf("%s, the client is stuck: %s", w.name, client.Stuck)
	}
	return client, server
}

// require holds what the case says against what peers tell without an edge.
func (c drawn) require(t *testing.T, clientName string, client, server outcome) {
	t.Helper()
	judge, told := c.server, client.Code
	if c.toClient {
		judge, told = clientName, server.Code
	}
	if slices.Contains(c.lenient, judge) {
		return
	}
	if c.heard != nil && !slices.Equal(client.Heard, c.heard) {
		t.Errorf("the client heard %.500s, not %.500s", strings.Join(client.Heard, ", "), strings.Join(c.heard, ", "))
	}
	if c.codes != nil && !slices.Contains(c.codes, told) {
		t.Errorf("it ended with %d, not %v", told, c.codes)
	}
	if client.Pongs < c.pongs { // some count those, too, that nobody asked for
		t.Errorf("the client heard %d pongs, not %d", client.Pongs, c.pongs)
	}
}
