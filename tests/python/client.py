"""A client made from server reflection alone: submits a pipeline, watches it to its end, and tails its logs.

Usage: client.py --server HOST:PORT --token TOKEN PIPELINE.json
Prints one JSON object: the run's name and state, whether it was created anew by each of two equal submissions, the types of its
events in order, and the log lines by step.
"""

import argparse
import json
import sys
import uuid

import grpc
from google.protobuf import descriptor_pool, json_format, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase


class Api:
    """Calls methods by name, with messages made from reflected descriptors."""

    def __init__(self, address, token):
        self.channel = grpc.insecure_channel(address)
        self.metadata = [("authorization", f"Bearer {token}"), ("windlass-user", "python")]
        authenticated = grpc.intercept_channel(self.channel, _AddMetadata(self.metadata))
        self.database = ProtoReflectionDescriptorDatabase(authenticated)
        self.pool = descriptor_pool.DescriptorPool(self.database)

    def services(self):
        return sorted(self.database.get_services())

    def _method(self, service, name):
        return self.pool.FindServiceByName(service).FindMethodByName(name)

    def call(self, service, name, request):
        method = self._method(service, name)
        message = json_format.ParseDict(request, message_factory.GetMessageClass(method.input_type)())
        kind = self.channel.unary_stream if method.server_streaming else self.channel.unary_unary
        call = kind(
            f"/{service}/{name}",
            request_serializer=lambda value: value.SerializeToString(),
            response_deserializer=message_factory.GetMessageClass(method.output_type).FromString,
        )
        return call(message, metadata=self.metadata, timeout=120)


class _AddMetadata(grpc.StreamStreamClientInterceptor):
    def __init__(self, metadata):
        self.metadata = metadata

    def intercept_stream_stream(self, continuation, details, requests):
        return continuation(details._replace(metadata=self.metadata), requests)


def watch(api, run):
    """Event types and the final run; every event follows the one before without a gap."""
    types, last, synced = [], None, False
    for response in api.call("windlass.run.v1.RunService", "WatchRun", {"run": run}):
        kind = response.WhichOneof("message")
        if kind == "synced":
            synced = True
        elif kind == "event":
            sequence = response.event.event.sequence
            assert last is None or sequence == last + 1, f"event {sequence} after {last}"
            last = sequence
            types.append(response.event.event.type)
        elif kind == "end":
            assert synced, "the end came before the snapshot was complete"
            return types, response.end.run
    raise AssertionError("the watch ended without an end")


def logs(address, token, run):
    """Log lines by step, and whether the stream said that it is complete."""
    api = Api(address, token)
    names, lines = {}, {}
    for response in api.call("windlass.log.v1.LogService", "TailLogs", {"run": run, "follow": True}):
        kind = response.WhichOneof("message")
        if kind == "lines":
            names.update({source.id: source.step for source in response.lines.sources})
            for line in response.lines.lines:
                lines.setdefault(names[line.source], []).append(line.content.decode())
        elif kind == "mark" and response.mark.HasField("source_description"):
            names[response.mark.source_description.id] = response.mark.source_description.step
        elif kind == "end":
            return lines, response.end.run_state
    raise AssertionError("the log ended without an end")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--server", required=True)
    parser.add_argument("--token", required=True)
    parser.add_argument("pipeline")
    args = parser.parse_args()
    api = Api(args.server, args.token)
    assert "windlass.run.v1.RunService" in api.services(), api.services()

    with open(args.pipeline, encoding="utf-8") as file:
        pipeline = json.load(file)
    request = {"requestId": str(uuid.uuid4()), "pipeline": pipeline}
    first = api.call("windlass.run.v1.RunService", "SubmitRun", request)
    second = api.call("windlass.run.v1.RunService", "SubmitRun", request)
    assert first.run.id == second.run.id, "one request id, two runs"
    types, run = watch(api, first.run.name)
    info = api.call("windlass.server.v1.ServerService", "GetServerInfo", {})
    lines, state = logs(info.relay_addresses[0].removeprefix("http://"), args.token, first.run.name)
    json.dump(
        {
            "run": run.name,
            "state": json_format.MessageToDict(run).get("state"),
            "submittedBy": run.submitted_by,
            "created": [first.created, second.created],
            "events": types,
            "logs": lines,
            "logState": state,
        },
        sys.stdout,
    )


if __name__ == "__main__":
    main()
