"""Two handlers, as they are written for AWS Lambda."""

import json
import statistics


def lambda_handler(event, context):
    """Body in, JSON out: reached by its URL, or by Invoke with an event that has a `body`."""
    numbers = json.loads(event["body"])["input"]
    print(f"{context.aws_request_id} has {len(numbers)} numbers")
    return {"statusCode": 200, "body": json.dumps({"prediction": statistics.fmean(numbers)})}


def plain(event, context):
    """Whatever comes goes back."""
    return {
        "event": event,
        "function": context.function_name,
        "left_ms": context.get_remaining_time_in_millis(),
    }
