// Package foreign runs a plugin that nothing of Weir's had a part in building: the usher
// of examples/plugins-foreign, in C by clang without a library, in Rust without a
// crate, in AssemblyScript with somebody else's SDK.
//
//	build.sh ─▶ module ─▶ the same cases, by the engine
//	                   ─▶ weir plugin inspect, test
//	                   ─▶ an edge, with a service that it asks
//
// What is compared is always the same, whatever the language: examples/plugins-foreign/cases.yaml
// and the tests here. A language whose toolchain is not there is skipped;
// examples/plugins-foreign/toolchains.sh installs all of them.
package foreign
