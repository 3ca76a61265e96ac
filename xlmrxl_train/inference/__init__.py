"""What is done with a trained model: used, spread over devices, quantized, averaged, exported."""
