package proxy_test

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy"
)

// conformanceServer names, in the process that is the edge, the server that is to
// stand behind it.
const conformanceServer = "WEIR_CONFORMANCE_SERVER"

// conformanceFeatures are those of the reference server that an edge has a part
// in. HTTP/1.1 is spoken half duplex by its client.
const conformanceFeatures = `features:
  versions: [HTTP_VERSION_1, HTTP_VERSION_2]
  protocols: [PROTOCOL_CONNECT, PROTOCOL_GRPC, PROTOCOL_GRPC_WEB]
  codecs: [CODEC_PROTO, CODEC_JSON]
  compressions: [COMPRESSION_IDENTITY, COMPRESSION_GZIP, COMPRESSION_BR, COMPRESSION_ZSTD, COMPRESSION_DEFLATE, COMPRESSION_SNAPPY]
  supportsH2c: true
  supportsTls: true
  supportsTlsClientCerts: false
  supportsHalfDuplexBidiOverHttp1: true
`

// The Connect project's suite is not ours; where it is installed (make
// conformance), its client and its server have to be content with an edge between
// them, for Connect, gRPC and gRPC-Web over HTTP/1.1 and HTTP/2: the basic cases, or
// those that CONFORMANCE_RUN names.
func TestConnectConformance(t *testing.T) {
	runner, server := installed("connectconformance"), installed("referenceserver")
	if runner == "" || server == "" {
		t.Skip("the suite is not installed: make conformance")
	}
	conf := filepath.Join(t.TempDir(), "conf.yaml")
	if err := os.WriteFile(conf, []byte(conformanceFeatures), 0o600); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"--mode", "server", "--conf", conf, "--max-servers", "2", "--run", cmp.Or(os.Getenv("CONFORMANCE_RUN"), "Basic/**")}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, runner, append(args, "--", self, "-test.run", "^TestConformanceEdge$")...)
	cmd.Env = append(os.Environ(), conformanceServer+"="+server)
	out, err := cmd.CombinedOutput()
	text := strings.TrimSpace(string(out))
	if err != nil {
		t.Errorf("%v\n%s", err, text[max(0, len(text)-20_000):])
	}
	t.Log(text[strings.LastIndex(text, "\n")+1:])
}

// installed finds a tool: one that make has installed, or the user.
func installed(name string) string {
	if path, err := filepath.Abs("../.bin/" + name); err == nil {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return ""
	}
	return path
}

// TestConformanceEdge is the edge of TestConnectConformance, in a process of its
// own: what the runner takes for the server. It says nothing by itself.
func TestConformanceEdge(t *testing.T) {
	server := os.Getenv(conformanceServer)
	if server == "" {
		return
	}
	ctx, stop := signal.NotifyContext(t.Context(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	asked := readSized(t, os.Stdin)
	cmd := exec.CommandContext(ctx, server)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	version, secure, clear := inTheClear(asked)
	writeSized(t, in, clear)
	address := addressIn(readSized(t, out))

	s := service("s", address)
	if version == 2 {
		s.Spec.Protocol = weirv1.ServiceSpec_HTTP2
	}
	e := startEdgeWith(t, func(c *proxy.Config) { c.Logger = slog.New(slog.DiscardHandler) }, s, route("r", "/", "s"))
	if secure {
		e.apply(certificate(t, "own", "localhost"), gateway(secureListener("https", "", nil, "own")))
	}
	host, port, _ := strings.Cut(e.addr, ":")
	var number uint64
	fmt.Sscan(port, &number)
	if secure {
		host = "localhost" // as in the certificate
	}
	answer := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), host)
	answer = protowire.AppendVarint(protowire.AppendTag(answer, 2, protowire.VarintType), number)
	if secure {
		answer = protowire.AppendString(protowire.AppendTag(answer, 3, protowire.BytesType), testAuthority().pem())
	}
	writeSized(t, os.Stdout, answer)
	<-ctx.Done()
	_ = cmd.Wait()
}

// inTheClear takes TLS out of a ServerCompatRequest, which is the edge's part.
func inTheClear(asked []byte) (version uint64, secure bool, clear []byte) {
	for len(asked) > 0 {
		field, kind, n := protowire.ConsumeTag(asked)
		size := protowire.ConsumeFieldValue(field, kind, asked[n:])
		value := asked[n : n+size]
		switch field {
		case 2: // http_version
			version, _ = protowire.ConsumeVarint(value)
		case 4: // use_tls
			on, _ := protowire.ConsumeVarint(value)
			secure = on != 0
		}
		if field != 4 && field != 5 && field != 7 { // the credentials
			clear = append(clear, asked[:n+size]...)
		}
		asked = asked[n+size:]
	}
	return version, secure, clear
}

// addressIn reads a ServerCompatResponse.
func addressIn(answer []byte) string {
	var host string
	var port uint64
	for len(answer) > 0 {
		field, kind, n := protowire.ConsumeTag(answer)
		size := protowire.ConsumeFieldValue(field, kind, answer[n:])
		switch value := answer[n : n+size]; field {
		case 1:
			host, _ = protowire.ConsumeString(value)
		case 2:
			port, _ = protowire.ConsumeVarint(value)
		}
		answer = answer[n+size:]
	}
	return fmt.Sprintf("%s:%d", host, port)
}

func readSized(t *testing.T, r io.Reader) []byte {
	t.Helper()
	var size [4]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, binary.BigEndian.Uint32(size[:]))
	if _, err := io.ReadFull(r, b); err != nil {
		t.Fatal(err)
	}
	return b
}

func writeSized(t *testing.T, w io.Writer, b []byte) {
	t.Helper()
	if _, err := w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...)); err != nil {
		t.Fatal(err)
	}
}
